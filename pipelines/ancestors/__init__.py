"""The ancestor: from any trained model to a timm model in the output folder."""
