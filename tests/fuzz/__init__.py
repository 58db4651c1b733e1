"""Mutated inputs for every reader of files that come from elsewhere: a right result or one line, in bounded time."""
