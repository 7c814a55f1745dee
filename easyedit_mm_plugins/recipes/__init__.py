"""How each shipped weight was trained. Only the commands that train them import this."""
