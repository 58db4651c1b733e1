"""What a trained network computes and spends: one operation counter, one price list, one spike-driven verdict."""
