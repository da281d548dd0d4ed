"""Tables, figures and the offline HTML report."""
