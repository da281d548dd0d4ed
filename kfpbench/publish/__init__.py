"""Runs made fit for others: several in one folder, table or report, and tables in common formats."""
