"""bAbI: twenty question answering tasks (Weston et al. 2015, arXiv 1502.05698)."""
