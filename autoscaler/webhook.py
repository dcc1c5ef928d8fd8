"""What Alertmanager sends: its webhook payload, version 4 (https://prometheus.io/docs/alerting/latest/configuration/#webhook_config)."""

from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

FIRING = "firing"
_Text = Annotated[str, Field(max_length=4096)]


class Alert(BaseModel):
    """One alert of a group; what nobody here reads is left out."""

    model_config = ConfigDict(frozen=True)

    status: Literal["firing", "resolved"]
    labels: Annotated[dict[_Text, _Text], Field(max_length=64)]
    starts_at: Annotated[AwareDatetime, Field(alias="startsAt")]
    fingerprint: Annotated[str, Field(pattern=r"^[0-9a-f]{1,32}$")]


class Notification(BaseModel):
    """One group of alerts."""

    model_config = ConfigDict(frozen=True)

    version: Literal["4"]
    group_key: Annotated[str, Field(alias="groupKey", max_length=8192)]
    alerts: Annotated[list[Alert], Field(max_length=1000)]
