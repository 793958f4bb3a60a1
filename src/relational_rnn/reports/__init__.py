"""Tables, figures and pages from finished runs; reads, never trains."""
