"""The store: all SQL. Functions take a connection; `in_transaction` alone opens a transaction."""
