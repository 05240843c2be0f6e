"""Named configurations: profiles, selections, channel mappings, recipes, priors and variants, as YAML read by the rooms."""
