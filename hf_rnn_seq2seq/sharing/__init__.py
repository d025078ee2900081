"""Model cards, the Hub, exports, the runtime that needs no torch, its server, and the demo."""

from ..data.doors import door


__all__, __getattr__ = door(
    __name__,
    {
        "card": "create_model_card save_model_card",
        "export": "export_model",
        "hub": "push_to_hub",
        "pronounce": "Pronouncer",
        "runtime": "RnnSeq2SeqRuntime",
        "runtime_series": "RnnSeriesRuntime",
        "runtime_values": "RnnValuesRuntime",
        "server": "serve",
        "demo": "build_demo launch_demo write_space",
    },
)
