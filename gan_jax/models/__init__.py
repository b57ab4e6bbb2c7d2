"""The three GAN families, their networks and their losses."""
