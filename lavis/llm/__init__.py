"""Language models behind one client: endpoints, local models, scripted rules."""
