"""ProGAN, StyleGAN and BigGAN, and the protocol they share."""
