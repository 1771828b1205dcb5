"""The report of a comparison: verdict, charts, tables, pages and exported arrays."""
