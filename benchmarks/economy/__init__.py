"""Cheats against the economy, played on the product's own rules: what each gains beyond what its threat allows."""
