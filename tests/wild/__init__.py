"""What applications, clients and deployments hit: a case for each row."""
