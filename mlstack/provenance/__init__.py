"""Where every version of data and models comes from: statements, signatures, bills of materials, lineage."""
