"""The table of errors that servers of chat completions send: who says what, and what it means.

The first row that fits decides, so that what tells most stands first: the account before the rate
(messages about a rate speak of billing too), one image after images at all.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from lavis.llm.endpoint.error_body import ErrorBody

Kind = Literal["transient", "simplify", "refused", "fatal", "stopped"]


@dataclass(frozen=True, slots=True)
class Rule:
    """A row: an error fits where its status is listed and one of its codes or its words match.

    Attributes:
        kind: of the problem.
        phrase: begins the reason.
        statuses: (first, last), both included.
        codes: any of them is enough.
        words: searched in what the error says, in lower case, without addresses.
        unless: words or codes that tell another matter.
        evidence: who says so.
        advice: ends the reason.
    """

    kind: Kind
    phrase: str
    statuses: tuple[int, int]
    evidence: str
    codes: frozenset[str] = frozenset()
    words: str = ""
    unless: str = ""
    advice: str = ""

    def fits(self, status: int, error: ErrorBody) -> bool:
        """Return whether the row tells of this error."""
        if not self.statuses[0] <= status <= self.statuses[1]:
            return False
        if self.unless and any(re.search(self.unless, t) for t in (error.words, *error.codes)):
            return False
        if not self.codes and not self.words:
            return True
        return bool(self.codes & error.codes) or bool(
            self.words and re.search(self.words, error.words)
        )


def _codes(text: str) -> frozenset[str]:
    return frozenset(text.split())


CLIENT = (400, 499)
_IMAGE = r"(?:image|picture|photo|base64|pixel)"

RULES: tuple[Rule, ...] = (
    Rule(
        "stopped", "account", CLIENT,
        "OpenAI account_deactivated (401, 403), unsupported_country_region_territory (403), "
        "Anthropic and Alibaba (400): account not in good standing; Gemini: user location",
        _codes("account_deactivated unsupported_country_region_territory ip_not_authorized"),
        r"(account|organization|workspace|project|your access)\b.{0,60}"
        r"(deactivated|suspended|terminated|disabled|banned|blocked|restricted|denied access"
        r"|good standing|flagged)"
        r"|country, region|user location is not supported",
        unless="arrear",
    ),
    Rule(
        "refused", "content filter", CLIENT,
        "Azure and OpenAI content_filter (400), OpenRouter (403 flagged), DeepSeek Content Exists "
        "Risk, Alibaba DataInspectionFailed, Zhipu 1301, xAI usage guidelines, Gemini",
        _codes(
            "content_filter content_policy_violation moderation_blocked data_inspection_failed "
            "datainspectionfailed responsibleaipolicyviolation image_content_policy_violation "
            "content_moderation 1301 sensitive_content prohibited_content moderation_error"
        ),
        r"content[_ ](management |exists )?(policy|filter|risk)|flagged|moderat|safety|unsafe"
        r"|guardrail block|inappropriate content|violat\w+.{0,40}(polic|guideline|terms)"
        r"|prohibited[_ ](content|use)|(?<!case[- ])sensitive"
        r"|usage guidelines|敏感|违规",
        unless="data policy",
    ),
    Rule(
        "stopped", "quota", (429, 429),
        "Gemini (429): a model that the free tier does not have, or its quota of a day",
        words=r"quota exceeded for metric.*(limit: 0\b|per_?day)",
        advice="see the provider's account page; the same command goes on once it is in order",
    ),
    Rule(
        "transient", "rate", (429, 429),
        "Gemini (429): its quota a minute is told in the words of billing, with a retryDelay",
        words=r"quota exceeded for metric.*retry in",
    ),
    Rule(
        "refused", "too long", (413, 429),
        "OpenAI (429), Groq (413): a request larger than the limit of a minute never fits",
        words=r"request too large.*(requested|limit)",
    ),
    Rule(
        "stopped", "quota", (400, 429),
        "OpenAI insufficient_quota (429), billing_hard_limit_reached (400), billing_not_active; "
        "Anthropic (400) credit balance too low, usage limits; DeepSeek (402); OpenRouter (402, "
        "403); xAI (403, 429) spending limit; Alibaba Arrearage (400); Moonshot, Zhipu (429)",
        _codes(
            "insufficient_quota billing_hard_limit_reached billing_not_active arrearage 1113 "
            "insufficient_credits insufficient_balance exceeded_current_quota_error quota_exceeded "
            "payment_required key_spend_limit_exceeded budget_exceeded billing_error "
            "insufficient_user_quota access_terminated billing_limit_exceeded"
        ),
        r"insufficient[ _](credit|balance|fund|quota|account)|billing|current quota|arrear|overdue"
        r"|credit balance|credits?\b.{0,40}(exhaust|used up|deplet|ran out|too low|expired|requir)"
        r"|(used|spent|exceeded) (all|your|up).{0,40}(credits|allocation|allowance)"
        r"|spend(ing)?[ _]limit|spend cap|key limit exceeded|over budget"
        r"|(purchase|buy|add|require\w*|need|up) (more )?credits|no (remaining )?credits"
        r"|payment|out of (credits|funds|money)|prepa(id|yment)|top[- ]?up|recharge|past due"
        r"|balance.{0,30}(low|not enough|insufficient|exhaust|negative|empty|depleted)"
        r"|not enough (credits?|balance|funds|money)"
        r"|quota.{0,40}(exceed|exhaust|used up|reached|not enough)"
        r"|(exceed|exhaust|reached|used up).{0,40}\bquota|monthly.{0,20}(limit|quota|usage)"
        r"|usage limit|budget.{0,20}(exceed|exhaust|full|reached)|free (tier|trial).{0,40}(exhaust"
        r"|expired|ended|used)|per[-_ ]?day(?!.*(retry|try again) in)|余额|欠费|充值|额度",
        unless=r"rate_?limit_?(exceeded|error|reached)(?!.*per[-_ ]day)"
        r"|(retry|try again) (in|after) [\d.]+|pricing tier|(?<!some )resource has been exhausted",
        advice="see the provider's account page; the same command goes on once it is in order",
    ),
    Rule(
        "stopped", "payment required", (402, 402), "RFC 9110: 402 is about payment in any wording",
        advice="see the provider's account page; the same command goes on once it is in order",
    ),
    Rule(
        "fatal", "key", (400, 403),
        "xAI and Gemini (400), Azure (401), others: a wrong key under any status",
        _codes("invalid_api_key api_key_invalid authentication_error unauthenticated"),
        r"(incorrect|invalid|wrong|missing|expired|malformed|no) (api|access|subscription)[-_ ]?key"
        r"|api[-_ ]?key.{0,30}(not valid|invalid|not found|expired|missing|incorrect|required)"
        r"|authentication fail|x-api-key",
        advice="look at the environment variable that llm.api_key_env names",
    ),
    Rule(
        "fatal", "pictures", (400, 501),
        "OpenAI (400) only certain models; OpenRouter (404); llama.cpp (500) without mmproj; vLLM "
        "(400) not multimodal; DeepSeek (400) unknown variant; Groq (400); Ollama (500)",
        words=r"image_url is only supported|no endpoints found that support image"
        r"|(does not|doesn't|do not|don't|cannot|can't|is not able to) (support|accept|allow) "
        r"(the )?(image|vision|visual|picture|multi-?modal)\w*(?! (of|format|type|size|url|larger))"
        r"|(cannot|can't|unable to|not able to) (process|handle|read|see|view) (images|pictures)"
        r"|(image|vision|visual|multi-?modal)( input| content)?s?( modality)? (is|are) not (support"
        r"|enabled|available|allowed)|not a (multi-?modal|vision)|unknown variant .image_url"
        r"|content must be a string|content\W{1,3}expected a string|data required for image input"
        r"|at most 0 image|mmproj"
        r"|only (supports? )?text (input|content)|text-only model",
        advice="no picture can be sent to this model; set llm.model to one that sees",
    ),
    Rule(
        "refused", "picture", (400, 500),
        "OpenAI invalid_image_format, image_parse_error (400); Anthropic (400) size and sides; "
        "vLLM and llama.cpp (400, 500) cannot identify image; Gemini (400) unable to process",
        _codes(
            "invalid_image_url invalid_image_format image_parse_error invalid_base64_image "
            "image_too_large image_too_small sanitizer_server_error invalid_image "
            "invalid_image_data image_file_too_large unsupported_image_media_type "
            "empty_image_file unsupported_image"
        ),
        r"(invalid|unsupported|corrupt\w*|truncated|damaged|malformed|broken|unreadable|identify"
        r"|fail\w* to|could ?n.t|could not|can ?not|unable to|unsuccessful|error"
        r"|too (large|small|big)|too many|exceed\w*|incorrect|bad).{0,50}\b"
        + _IMAGE
        + r"|\b"
        + _IMAGE
        + r"\w*\b.{0,80}"
        r"(invalid|unsupported|not supported|corrupt|truncated|damaged|too (large|small|big|many)"
        r"|exceed|not valid|could not|can ?not|unable|must (be|not)|fail|aspect|at most|larger)"
        r"|at most \d+ image|aspect ratio",
    ),
    Rule(
        "fatal", "max_tokens", (400, 422),
        "OpenAI (400) supports at most N completion tokens; Anthropic (400) maximum allowed number "
        "of output tokens; DeepSeek (400) valid range",
        words=r"max(imum)?_?(completion_|output_|new_)?tokens.{0,120}"
        r"(supports? (only )?(up to|at most)|maximum allowed number of output|valid range"
        r"|(must|should) be (less|at most|between|>|<|greater|\[)"
        r"|out of range|at least|minimum|maximum value)",
        unless="context|inputs?. tokens|prompt",
        advice="set max_tokens to what the model can write",
    ),
    Rule(
        "refused", "too long", (400, 500),
        "OpenAI context_length_exceeded (400), llama.cpp exceed_context_size_error (400, 500), "
        "vLLM, SGLang and Together (400, 422), Anthropic request_too_large (413)",
        _codes(
            "context_length_exceeded exceed_context_size_error string_above_max_length "
            "request_too_large prompt_too_long context_window_exceeded "
            "model_max_prompt_tokens_exceeded"
        ),
        r"context[_ ](length|window|size)|too many (input |prompt )?tokens|max_model_len|n_ctx"
        r"|too long|(prompt|input|message|request|conversation|content)s?\b.{0,60}too large"
        r"|reduce (the|your) (length|message|prompt|input)|input token count|max_new_tokens"
        r"|tokens?\b.{0,60}exceed|exceed.{0,60}\btokens|longer than the (model|maximum)"
        r"|(payload|entity|body).{0,20}too large|range of input length",
        unless=r"rate_?limit_?(exceeded|error)|per (min|sec)",
    ),
    Rule(
        "transient", "odd generation", (400, 422),
        "Groq json_validate_failed and tool_use_failed (400): what the model wrote did not fit",
        _codes("json_validate_failed tool_use_failed output_parse_failed"),
        r"failed to (generate json|call a function|parse output)|failed_generation",
    ),
)  # fmt: skip

# Looked at after the parameters of the body, see `classify`.
LATER_RULES: tuple[Rule, ...] = (
    Rule(
        "fatal", "model", (400, 422),
        "OpenAI model_not_found (404, 403), Azure DeploymentNotFound (404), Ollama (404) try "
        "pulling, OpenRouter (400) not a valid model ID, DeepSeek (400) Model Not Exist",
        _codes(
            "model_not_found deploymentnotfound model_not_available unknown_model modelnotfound "
            "model_decommissioned invalid_model model_not_supported unsupported_model "
            "unavailable_model 1211"
        ),
        r"\b(model|deployment|engine)\b.{0,120}(not exist|not found|no longer|decommission"
        r"|shut ?down|not available|not a valid|not supported|isn.t supported|not loaded"
        r"|try pulling|retired|unknown|invalid)"
        r"|(invalid|unknown|no such|not a valid|unsupported|incorrect|find) model"
        r"|access to (the )?model|not a chat model|no endpoints|only supported in v1/"
        r"|no healthy deployment|llm provider not provided",
        unless="temporar|overload|capacity|busy|loading|try again",
        advice="look at llm.model",
    ),
    Rule("refused", "HTTP 413", (413, 413), "RFC 9110: more than the server reads"),
    Rule("fatal", "key", (401, 401), "RFC 9110: 401 lacks valid credentials",
         advice="look at the environment variable that llm.api_key_env names"),
    Rule("fatal", "permission", (403, 403), "OpenAI, Gemini, Azure: this key may not do this",
         advice="look at llm.api_key_env, llm.base_url and llm.model"),
    Rule("fatal", "address", (404, 405), "FastAPI, OpenAI, nginx: nothing answers at this path"),
    Rule("fatal", "proxy", (407, 407), "RFC 9110: the proxy wants a password",
         advice="look at the environment variables HTTP_PROXY and HTTPS_PROXY"),
    Rule("transient", "", (408, 409), "RFC 9110: the request may be repeated"),
    Rule("transient", "", (424, 425), "RFC 4918 and 8470: another server failed; too early"),
    Rule("transient", "", (429, 429), "RFC 6585: too many requests, of a rate and not a quota"),
    Rule("transient", "", (498, 499), "Groq: capacity exceeded; nginx: closed request"),
    Rule("transient", "", (500, 500), "RFC 9110"),
    Rule("transient", "", (502, 599), "RFC 9110, Cloudflare 520-530, Anthropic 529 overloaded"),
)  # fmt: skip
