"""The operator vocabulary: neurons, norms, attention. Imports torch and numpy only; everything else may import it."""
