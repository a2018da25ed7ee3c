"""What paywatch decides: pure functions and frozen values. No I/O, no clock, no randomness."""
