"""ZuCo 1.0 and 2.0: readers, quality, splits, caches."""
