"""Operators, export, and the neuromorphic trainer that prices what was exported. Knows no domain."""
