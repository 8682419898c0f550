"""What credits are and how they move: pure, without I/O, clock, randomness or settings; a function of the log."""
