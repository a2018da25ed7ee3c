"""The store: all SQL. Functions take a connection; none but `in_transaction` opens a transaction."""
