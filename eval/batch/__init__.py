"""A planned batch on its way: plan, generate, fill, export, verify."""
