"""`nectar wallet`: an account's credits, as its owner sees and moves them."""
