"""Visual commonsense research: localized knowledge distillation and late image fusion."""
