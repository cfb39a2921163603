"""From a trained ranker to a list for somebody: rules, scores, choice and reasons."""
