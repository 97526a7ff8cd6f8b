"""What is started in processes of their own: variants of the service, and what starts them."""
