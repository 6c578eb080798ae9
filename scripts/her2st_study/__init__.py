"""The study of CPNN on her2st that docs/results.md reports: data, runs, tables, figures."""
