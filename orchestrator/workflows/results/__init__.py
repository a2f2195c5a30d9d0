"""What runs leave behind: brought here, verified, compared, asked."""
