"""The only SQL: the log and the tables in one database (SQLite or PostgreSQL), and the one sequencer that writes."""
