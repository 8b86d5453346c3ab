"""Images and latents to coded bytes and back."""
