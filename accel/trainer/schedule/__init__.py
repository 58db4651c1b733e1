"""Which core computes what and when: partition, plan, timeline, search, and the result of a simulation."""
