"""The store: all SQL of paywatch. Functions take a connection; none opens a transaction."""
