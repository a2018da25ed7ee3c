"""Telling merchants: signatures, where a POST may go, one bounded POST, secrets at rest."""
