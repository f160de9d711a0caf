"""Commands of the ML engineer: data, train, export, optimize, evaluate, bundle, segment, lineage."""
