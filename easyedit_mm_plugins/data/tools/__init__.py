"""What ``easyedit-mm data`` runs: fetch, build, verify, preview, stats, card and push."""
