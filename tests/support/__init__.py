"""What several files of tests share: small models, text, studies, servers and tolerances."""
