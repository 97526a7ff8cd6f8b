"""What all APIs share on the wire: bounds, bodies, headers, errors, usage."""
