"""What the tests share: servers, clients, references."""
