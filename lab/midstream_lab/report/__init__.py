"""Reports: figures and tables in one HTML page, drawn without JavaScript libraries."""
