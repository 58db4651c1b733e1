"""Workers of a federated training, in this process or run by Flower."""
