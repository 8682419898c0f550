"""What others read of the tables, each read by an index whatever the log's length. All run in the caller's transaction.

What is private, purses and an open batch's verdicts, is in functions that say so.
"""
