"""Short programs, one question each, that run in any empty folder without data or a network."""
