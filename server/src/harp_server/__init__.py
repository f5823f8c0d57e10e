"""HARP on the side of the devices: the certificate authority and the server's agent."""
