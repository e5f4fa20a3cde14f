"""What people look at: pages, figures, tables and sentences made from results. Nothing here runs a
model."""
