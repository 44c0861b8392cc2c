"""Texts that share an image: encoded once, scored as if alone."""

import pytest
import torch

from lavis.common.errors import ConfigError


def close(actual, expected, tolerance=1e-4):
    torch.testing.assert_close(actual, expected, rtol=0, atol=tolerance)


@pytest.fixture
def critic(make_critic):
    return make_critic(rationale_target="qa_label")


@pytest.fixture
def samples(golden):
    return {**golden.inputs, "text_input": golden.texts}


@pytest.mark.parametrize("max_texts", [256, 3])
@pytest.mark.parametrize("index", [[0, 0, 0, 1, 1, 1], [2, 0, 2, 2, 1, 0], [5, 4, 3, 3, 3, 3]])
def test_texts_of_one_image_score_as_if_alone(make_critic, golden, index, max_texts):
    critic = make_critic(max_texts_per_pass=max_texts)
    image = golden.inputs["image"]
    shared = critic.predict(
        {"image": image, "text_input": golden.texts, "image_index": torch.tensor(index)}
    )
    for row, (text, place) in enumerate(zip(golden.texts, index, strict=True)):
        alone = critic.predict({"image": image[place : place + 1], "text_input": [text]})
        close(shared["logits"][row], alone["logits"][0], 1e-5)


def test_gradients_do_not_depend_on_how_images_are_shared(make_critic, golden, samples):
    index = [1, 0, 1, 1, 2, 0]
    gradients = []
    for shared in (True, False):
        critic = make_critic()
        image = samples["image"]
        images = {"image": image, "image_index": index} if shared else {"image": image[index]}
        critic({**samples, **images})["loss"].backward()
        gradients.append({n: p.grad for n, p in critic.named_parameters() if p.requires_grad})
    for name, expected in gradients[1].items():
        close(gradients[0][name], expected, 1e-6)


def test_each_image_is_encoded_once_and_features_can_stand_for_it(make_critic, golden):
    critic = make_critic()
    calls = []
    critic.visual_encoder.register_forward_hook(lambda _, args, output: calls.append(len(output)))
    batch = {"text_input": golden.texts, "image_index": [0, 1, 0, 1, 0, 1]}
    image = golden.inputs["image"][:2]
    direct = critic.predict({**batch, "image": image})
    assert calls == [2]
    features = critic.encode_frozen(image)
    cached = critic.predict({**batch, "vision_features": features})
    assert calls == [2, 2]
    assert torch.equal(direct["logits"], cached["logits"])


def test_padding_does_not_change_a_score(make_critic, golden):
    critic = make_critic(max_txt_len=128)
    image = golden.inputs["image"][:1]
    texts = ["a man", "a man who has been waiting for a very long time at the door"]
    together = critic.predict({"image": image, "text_input": texts, "image_index": [0, 0]})
    for row, text in enumerate(texts):
        alone = critic.predict({"image": image, "text_input": [text]})
        close(together["logits"][row], alone["logits"][0], 1e-5)


def test_texts_without_their_images_are_refused(make_critic, golden):
    critic = make_critic()
    with pytest.raises(ConfigError, match="6 texts for 2 images: samples need 'image_index'"):
        critic.predict({"image": golden.inputs["image"][:2], "text_input": golden.texts})
    with pytest.raises(ConfigError, match="there are 2 texts and 1 images"):
        critic.predict(
            {
                "image": golden.inputs["image"][:1],
                "text_input": golden.texts[:2],
                "image_index": [0, 1],
            }
        )
