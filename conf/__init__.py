"""Values: one YAML file a verb, one folder a choice. Shapes and meanings stand with the classes they configure."""
