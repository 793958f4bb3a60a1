"""Looking inside trained models; reads, never trains."""
