"""From YAML to cells: schema, loading with line numbers, expansion of the grid."""
