"""IKE as a baseline: EasyEdit's own demonstrations and retrieval before a frozen backbone."""
